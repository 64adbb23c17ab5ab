"""A model of Hugging Face's transformers on pictures and captions, valued without changes.

    pip install transformers
    python examples/transformers_model.py

The model is built small from a configuration, without a download, and trained on captions and
pictures. Either may be uninformative: then only the other one shows the class.
"""

import torch
from torch.nn.functional import cross_entropy
from transformers import BatchEncoding, ViltConfig, ViltForQuestionAnswering

from mmcoop import replace_inputs, valuate

CLASSES = 4


def make_samples(n: int) -> tuple[dict, torch.Tensor, torch.Tensor]:
    """Inputs, labels, and which of caption and picture tells the class, bool `(n, 2)`."""
    labels = torch.randint(CLASSES, (n,))
    tells = torch.rand(n, 2) < 0.8
    mask = torch.arange(6) < torch.randint(3, 7, (n, 1))  # captions of 3 to 6 words
    words = torch.randint(10, 30, (n, 6))
    words[:, 1] = torch.where(tells[:, 0], 1 + labels, words[:, 1])  # words 1 to 4 name the class
    text = BatchEncoding({"input_ids": words * mask, "attention_mask": mask.long()})
    colours = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, -1, -1]])[labels]
    pictures = torch.randn(n, 3, 8, 8) + (colours * tells[:, 1:])[:, :, None, None]
    return {"text": text, "image": BatchEncoding({"pixel_values": pictures})}, labels, tells


def call(model: ViltForQuestionAnswering, inputs: dict) -> torch.Tensor:
    return model(**inputs["text"], **inputs["image"]).logits


def main() -> None:
    torch.manual_seed(0)
    config = ViltConfig(
        vocab_size=30, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=64, image_size=8, patch_size=4, num_labels=CLASSES,
    )  # fmt: skip
    model = ViltForQuestionAnswering(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(100):
        inputs, labels, _ = make_samples(64)
        optimizer.zero_grad()
        cross_entropy(call(model, inputs), labels).backward()
        optimizer.step()

    background, _, _ = make_samples(100)
    names = ["text", "image"]
    wrapped = replace_inputs(model, names, "marginal", background=background, call=call)
    inputs, labels, tells = make_samples(300)
    valuation = valuate(wrapped, [{"inputs": inputs, "labels": labels}], modalities=names)
    right = (valuation.predictions == labels).double().mean()
    print(f"accuracy {100 * right:.1f} %")
    for name, phi, tell in zip(names, valuation.contributions.T, tells.T, strict=True):
        informative, other = phi[tell].mean(), phi[~tell].mean()
        print(f"{name}: mean φ {informative:.2f} where it shows the class, else {other:.2f}")


if __name__ == "__main__":
    main()
