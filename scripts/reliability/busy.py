"""Takes all cores, as a policy on the CPU does: products of matrices without a pause."""

from __future__ import annotations

import os


def main() -> None:
    """Multiply until ended."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    a, b = torch.rand(768, 768), torch.rand(768, 768)
    while True:
        torch.mm(a, b)


if __name__ == '__main__':
    main()
