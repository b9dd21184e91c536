"""Make BN-Inception's published weights a backbone of this project.

    python data_scripts/bninception.py --from bn_inception.pth
    python data_scripts/bninception.py --from bn_inception.pth --to FILE

The file is the one that temporal segment networks and their successors start
from: a PyTorch state dict of ImageNet weights by the Caffe model's names
(`conv1_7x7_s2.weight`). Look for `bn_inception` beside their code; there is no
lasting home to download it from. It is read without running what it brings.

Writes data/bninception.safetensors, in float32 (the statistics of inputs up
to 255 do not fit float16), for `frame_cnn("bninception", FILE)`.
"""

import argparse
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib import ROOT  # noqa: E402
from lib.data.store import replacing  # noqa: E402
from lib.networks import bninception, cnn2d  # noqa: E402


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--from", dest="source", type=Path, required=True)
    parser.add_argument("--to", type=Path,
                        default=ROOT / "data" / "bninception.safetensors")
    chosen = parser.parse_args(arguments)
    net = cnn2d.frame_cnn("bninception")
    bninception.load_published(
        net, torch.load(chosen.source, weights_only=True, map_location="cpu"))
    with replacing(chosen.to) as beside:
        save_file(net.state_dict(), beside)
    print(f"{len(net.state_dict())} weights in {chosen.to}")


if __name__ == "__main__":
    main()
