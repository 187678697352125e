"""Distillation into chunks, against the two passes that it compares."""

from __future__ import annotations

import copy

import torch
import yaml
from places import ROOT

from edge.model.train_yaml import from_wenet
from edge.model.u2pp import U2pp
from recipes.reference.batches import Batch
from recipes.reference.distil import Distillation

CONFIGURATION = ROOT / "recipes" / "reference" / "train.yaml"
CPU = torch.device("cpu")


def models() -> tuple[U2pp, U2pp, Batch]:
    torch.manual_seed(0)
    student = U2pp(from_wenet(yaml.safe_load(CONFIGURATION.read_text()))).eval()
    teacher = copy.deepcopy(student)
    lengths = torch.tensor([180, 131])
    tokens = torch.randint(3, 29, (2, 6))
    return student, teacher, Batch(torch.randn(2, 180, 80) * 3 + 10, lengths, tokens, torch.tensor([6, 4]))


def heard(student: U2pp, batch: Batch, chunk: int) -> None:
    student.losses(batch.feats, batch.feat_lengths, batch.tokens, batch.token_lengths, ctc_weight=1.0, chunk=chunk)


def test_same_weights_in_full_context_have_nothing_to_learn() -> None:
    student, teacher, batch = models()
    distillation = Distillation(student, teacher)
    heard(student, batch, -1)
    assert abs(float(distillation.loss(batch, CPU).detach())) < 1e-3
    heard(student, batch, 4)
    assert float(distillation.loss(batch, CPU).detach()) > 0.1


def test_loss_is_the_distance_of_the_two_passes_without_padding() -> None:
    student, teacher, batch = models()
    distillation = Distillation(student, teacher)
    heard(student, batch, 4)
    found = float(distillation.loss(batch, CPU).detach())
    with torch.no_grad():
        chunks, valid = student.encoder(batch.feats, batch.feat_lengths, 4)
        full, _ = student.encoder(batch.feats, batch.feat_lengths, -1)
        total = 0.0
        for row, frames in enumerate(valid.squeeze(1).sum(1).tolist()):
            p, q = student.ctc(full[row, :frames]).double(), student.ctc(chunks[row, :frames]).double()
            total += float((p.exp() * (p - q)).sum())
            total += float(((full[row, :frames] - chunks[row, :frames]) ** 2).mean(-1).sum())
    assert abs(found - total / 2) < 1e-3 * found


def test_only_the_student_learns() -> None:
    student, teacher, batch = models()
    distillation = Distillation(student, teacher)
    heard(student, batch, 4)
    distillation.loss(batch, CPU).backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None for p in teacher.parameters())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in student.encoder.parameters())
