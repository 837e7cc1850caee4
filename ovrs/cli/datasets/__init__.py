"""List, look at and prepare data sets.

Examples:
    ovrs datasets list --present
    ovrs datasets prepare hg_loveda_6 --source Train.zip Val.zip
    ovrs datasets show hg_loveda_6 --split val
    ovrs datasets export hg_loveda_6 --split val --output annotations.json
"""
