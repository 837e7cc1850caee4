"""One module per family of original archives; a new one is entered here."""

from ovrs.preparation.recipe import Recipe
from ovrs.preparation.recipes.dlrsd import DLRSD
from ovrs.preparation.recipes.drones import UDD5, VDD
from ovrs.preparation.recipes.flair import Flair
from ovrs.preparation.recipes.floodnet import FloodNet
from ovrs.preparation.recipes.gid import GID
from ovrs.preparation.recipes.globe230k import Globe230k
from ovrs.preparation.recipes.inria import Inria
from ovrs.preparation.recipes.isaid import ISAID
from ovrs.preparation.recipes.landcoverai import LandCoverAI
from ovrs.preparation.recipes.landdiscover import LandDiscover, LandDiscoverPart
from ovrs.preparation.recipes.loveda import LoveDA
from ovrs.preparation.recipes.openearthmap import OpenEarthMap
from ovrs.preparation.recipes.potsdam import Potsdam
from ovrs.preparation.recipes.samrs import SAMRSFast
from ovrs.preparation.recipes.uavid import UAVid
from ovrs.preparation.recipes.vaihingen import Vaihingen

_ALL = (
    DLRSD(),
    Flair(),
    FloodNet(),
    GID(),
    Globe230k(),
    ISAID(),
    Inria(),
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
