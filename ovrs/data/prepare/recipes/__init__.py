"""One module per family of original archives; a new one is entered here."""

from ovrs.data.prepare.recipe import Recipe
from ovrs.data.prepare.recipes.isaid import ISAID
from ovrs.data.prepare.recipes.loveda import LoveDA
from ovrs.data.prepare.recipes.potsdam import Potsdam

RECIPES: dict[str, Recipe] = {recipe.family: recipe for recipe in (ISAID(), LoveDA(), Potsdam())}
