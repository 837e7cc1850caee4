"""One module per family of original archives; a new one is entered here."""

from ovrs.data.prepare.recipe import Recipe
from ovrs.data.prepare.recipes.dlrsd import DLRSD
from ovrs.data.prepare.recipes.drones import UDD5, VDD
from ovrs.data.prepare.recipes.flair import Flair
from ovrs.data.prepare.recipes.floodnet import FloodNet
from ovrs.data.prepare.recipes.gid import GID
from ovrs.data.prepare.recipes.globe230k import Globe230k
from ovrs.data.prepare.recipes.isaid import ISAID
from ovrs.data.prepare.recipes.landcoverai import LandCoverAI
from ovrs.data.prepare.recipes.landdiscover import LandDiscover, LandDiscoverPart
from ovrs.data.prepare.recipes.loveda import LoveDA
from ovrs.data.prepare.recipes.openearthmap import OpenEarthMap
from ovrs.data.prepare.recipes.potsdam import Potsdam
from ovrs.data.prepare.recipes.samrs import SAMRSFast
from ovrs.data.prepare.recipes.uavid import UAVid
from ovrs.data.prepare.recipes.vaihingen import Vaihingen

_ALL = (
    DLRSD(),
    Flair(),
    FloodNet(),
    GID(),
    Globe230k(),
    ISAID(),
    LandCoverAI(),
    LandDiscover(),
    LandDiscoverPart(),
    LoveDA(),
    OpenEarthMap(),
    Potsdam(),
    SAMRSFast(),
    UAVid(),
    UDD5(),
    VDD(),
    Vaihingen(),
)

RECIPES: dict[str, Recipe] = {recipe.family: recipe for recipe in _ALL}
