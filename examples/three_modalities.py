"""Three modalities: handwritten digits seen through three slits, top, middle and bottom.

    python examples/three_modalities.py

Trains a model on the three views, then values what each view contributed to every test digit. An
absent view is replaced by those of 32 training digits in turn, and the outputs are averaged.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

from mmcoop import replace_inputs, valuate

ROWS = {"top": slice(0, 3), "middle": slice(3, 5), "bottom": slice(5, 8)}


class ThreeViews(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(
            {view: nn.Sequential(nn.Flatten(), nn.LazyLinear(32), nn.ReLU()) for view in ROWS}
        )
        self.head = nn.Linear(96, 10)

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.head(torch.cat([self.encoders[view](inputs[view]) for view in ROWS], dim=1))


def main() -> None:
    torch.manual_seed(0)
    digits = load_digits()
    pictures = torch.from_numpy(digits.images).float() / 16
    labels = torch.from_numpy(digits.target)
    train, test = torch.randperm(len(labels)).split([1200, len(labels) - 1200])
    seen = {view: pictures[train, rows] for view, rows in ROWS.items()}
    new = {view: pictures[test, rows] for view, rows in ROWS.items()}

    model = ThreeViews()
    model(seen)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(seen), labels[train]).backward()
        optimizer.step()

    wrapped = replace_inputs(model, list(ROWS), "marginal", background=seen, draws=32)
    batches = [{"inputs": new, "labels": labels[test], "ids": test}]
    scores = valuate(wrapped, batches, modalities=list(ROWS)).to_frame()
    print(f"accuracy from all views: {100 * scores['correct'].mean():.1f} %")
    for view in ROWS:
        contribution = scores[f"contribution_{view}"]
        low, misled = 100 * (contribution < 1).mean(), 100 * (contribution < 0).mean()
        shares = f"low-contributing on {low:.0f} % of the digits, misleading on {misled:.1f} %"
        print(f"{view}: mean φ {contribution.mean():.2f}, {shares}")


if __name__ == "__main__":
    main()
