"""A run computes as this machine can."""

import torch

from viceversa.config import Train, make
from viceversa.data.folders import Sources
from viceversa.device import available_cores
from viceversa.training import setup


def test_a_run_computes_as_before_but_for_what_this_machine_cannot(monkeypatch):
    s = make(Train, a="day", b="night", device="cpu")
    how = {"device": "cpu", "compile": True, "threads": 4096, "precision": "bf16"}
    before, said = torch.get_num_threads(), []
    monkeypatch.setattr(setup, "why_not_compile", lambda device: "no compiler")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    try:
        config = {"how": how, "settings": {"precision": "auto"}}
        sources = Sources([], [], [], [], ("day", "night"), {}, [])
        found, kept = setup.choose(s, torch.device("cpu"), sources, config, said.append)
    finally:
        torch.set_num_threads(before)
    assert found == {"device": "cpu", "compile": False, "threads": available_cores(), "precision": "fp32"}
    assert kept == how  # a larger machine computes as before
    assert [line.split()[0] for line in said] == ["not", str(available_cores()), "fp32"]
