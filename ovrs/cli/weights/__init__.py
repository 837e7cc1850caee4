"""Say what a weights file is, and convert it between this project's layout and those of the originals.

Examples:
    ovrs weights check model_final.pth
    ovrs weights import gsnet_official.pth gsnet.safetensors
    ovrs weights export output/model_final.pth for_gsnet.pth --to GSNet
"""
