"""The likelihood of a named text under any run, an imported one too."""

import json
import math
import shutil

import numpy as np
import pytest
from hf.checkpoints import edited
from tokenizers import Tokenizer, decoders, models

from lm.config import to_dict
from lm.data.config import Component
from lm.errors import UserError
from lm.evals.__main__ import evaluate_loss, main
from lm.hf.runs import import_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An imported GPT-2 whose weights are zeros: every token has the probability 1/19, so that the loss of any text is known."""
    folder = tmp_path_factory.mktemp("gpt2")
    letters = {letter: i for i, letter in enumerate("abcdefghijklmnopqr")}
    tokenizer = Tokenizer(models.BPE(vocab={**letters, "<|endoftext|>": 18}, merges=[]))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    source = edited(folder, "gpt2", tensors={"transformer.wte.weight": np.zeros((19, 6), np.float32)})
    tokenizer.save(str(source / "tokenizer.json"))
    import_run(source, folder / "run")
    return folder / "run"


def write(folder, lengths):
    rng, paths = np.random.default_rng(0), [folder / f"{i}.txt" for i in range(len(lengths))]
    for path, length in zip(paths, lengths, strict=True):
        path.write_text("".join(rng.choice(list("abcdefghijklmnopqr"), length)))
    return paths


def test_all_of_a_named_text_is_scored(run, tmp_path, capsys):
    lengths = [1, 3, 40, 7]
    paths = write(tmp_path, lengths)
    tokens = sum(lengths) + len(lengths)  # and the ends of documents
    assert main(["loss", str(run), "--json", f"--text={paths[0]},{paths[1]}", f"--text={paths[2]},{tmp_path}/3.*"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["documents"], found["bytes"], found["tokens"], found["step"]) == (4, sum(lengths), tokens, 0)
    assert found["nats"] == pytest.approx(tokens * math.log(19), rel=1e-6)
    assert found["nats_per_byte"] == pytest.approx(found["nats"] / sum(lengths), rel=1e-6)
    other = ["evaluation.stride=1", "data.sequence_length=4"]
    some = evaluate_loss(run, text=[str(tmp_path)], documents_bytes=10, overrides=other)
    assert 0 < some["bytes"] <= 10
    assert some["nats"] == pytest.approx((some["bytes"] + some["documents"]) * math.log(19), rel=1e-6)


def test_all_of_the_text_that_the_run_was_trained_on_is_scored_where_it_is_named(run, tmp_path):
    """Its held-out part is scored only where no text is named."""
    path, own = write(tmp_path, [40])[0], tmp_path / "run"
    shutil.copytree(run, own)
    saved = json.loads((own / "run.json").read_text(encoding="utf-8"))
    saved["experiment"]["data"]["components"] = [to_dict(Component("text_files", (str(path),)))]
    (own / "run.json").write_text(json.dumps(saved), encoding="utf-8")
    assert evaluate_loss(own, text=[str(path)])["bytes"] == 40


def test_what_cannot_be_evaluated_is_refused_in_one_line(run, tmp_path):
    with pytest.raises(UserError, match="--text=FILE"):
        evaluate_loss(run)
    with pytest.raises(UserError, match=r"none\.txt"):
        evaluate_loss(run, text=[str(tmp_path / "none.txt")])
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(UserError, match=r"empty\.txt"):
        evaluate_loss(run, text=[str(tmp_path / "empty.txt")])
    (tmp_path / "lost.txt").write_text("abc xyz")
    shutil.copytree(run, tmp_path / "old")
    saved = json.loads((run / "run.json").read_text(encoding="utf-8")) | {"final": {"nats_per_byte": 0.125}}
    (tmp_path / "old" / "run.json").write_text(json.dumps(saved), encoding="utf-8")
    for folder, names in (
        (run, "loses.*--text=FILE"),
        (tmp_path / "old", r"loses.*0\.1250.*--text=FILE"),
    ):  # made before losses were measured
        with pytest.raises(UserError, match=f"{folder}.*{names}"):
            evaluate_loss(folder, text=[str(tmp_path / "lost.txt")])
    with pytest.raises(UserError, match=r"model\.d_model"):
        evaluate_loss(run, text=[str(tmp_path)], overrides=["model.d_model=3"])
    with pytest.raises(UserError, match="--text=nowhere"):
        main(["loss", str(run), "--text=nowhere"])
    with pytest.raises(UserError, match="--foo"):
        main(["loss", str(run), "--foo"])
