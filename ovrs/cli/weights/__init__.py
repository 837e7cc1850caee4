"""Handle files of weights.

Examples:
    ovrs weights convert gsnet_official.pth gsnet.safetensors
"""
