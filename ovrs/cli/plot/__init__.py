"""Draw what was measured: bars of every class's IoU, curves of training.

Files are PNG, SVG or PDF, by their ending.

Examples:
    ovrs plot classes hg_potsdam_5_val --out potsdam.svg
    ovrs plot curves output/demo/gsnet output/demo/dr_seg --out curves.png
"""
