"""Value your own model without changes: which of its inputs does each prediction rely on?"""

import torch
from torch import nn

import mmcoop


class MyModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 3))

    def forward(self, sound, picture):
        return self.layers(torch.cat([sound, picture], dim=1))


torch.manual_seed(0)
labels = torch.randint(3, (900,))
signals = {"sound": 1.5 * torch.eye(3, 8), "picture": 0.7 * torch.eye(3, 4)}
inputs = {name: x[labels] + torch.randn(900, x.shape[1]) for name, x in signals.items()}
model = MyModel()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for _ in range(100):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(**inputs), labels).backward()
    optimizer.step()
wrapped = mmcoop.replace_inputs(model, list(inputs), "marginal", background=inputs)
scores = mmcoop.valuate(wrapped, [{"inputs": inputs, "labels": labels}], modalities=list(inputs))
print(scores.to_frame().filter(like="contribution").describe().round(2))
