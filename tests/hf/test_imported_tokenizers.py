"""Models whose tokenizer is no tokenizer.json: SentencePiece models and tiktoken's ranks are found, read and written again."""

import base64
import io
import json

import pytest
import sentencepiece
from hf.checkpoints import edited

from lm.data.config import HuggingFaceTokenizer, SentencePieceFile, TiktokenFile
from lm.data.tokenizer import build
from lm.hf import __main__ as command
from lm.hf import tokenizer_files
from lm.hf.convert import load
from lm.hf.ids import of_source
from lm.hf.runs import export_run, import_run


def spm(path, pieces=12, **options):
    model, texts = io.BytesIO(), ["ab ba abba", "aab bab", "b a ab ba"] * 20
    fixed = {"vocab_size": pieces, "num_threads": 1, "minloglevel": 2, "hard_vocab_limit": False, "add_dummy_prefix": True}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(texts), model_writer=model, **fixed, **options)
    path.write_bytes(model.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def test_t5_with_its_spiece_model(tmp_path, capsys):
    source = edited(tmp_path, "t5", config={"eos_token_id": 1, "decoder_start_token_id": 0})
    pieces = spm(source / "spiece.model", pad_id=0, eos_id=1, unk_id=2, bos_id=-1).get_piece_size()
    (source / "tokenizer_config.json").write_text(json.dumps({"extra_ids": 19 - pieces}))
    assert command.main(["import", str(source), f"--workdir={tmp_path / 'run'}"]) == 0
    assert "no tokenizer" not in capsys.readouterr().out
    config = import_run(source, tmp_path / "again")
    assert config.data.tokenizer == SentencePieceFile(str(tmp_path / "again" / "spiece.model"), 19 - pieces, "</s>", "<pad>")
    read = build(config.data.tokenizer, [], "")
    assert (read.vocab_size, read.own.sentinels[0], read.start_id, read.eos_id) == (19, 18, 0, 1)
    ids = of_source(source, config.model)
    assert (ids.stops, ids.first, ids.before, ids.after) == ((1,), (0,), (), (1,))
    export_run(tmp_path / "again", tmp_path / "out")
    for name in ("spiece.model", "tokenizer_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()


@pytest.mark.parametrize("flags", [{}, {"add_bos_token": False}])
def test_llama_with_its_tokenizer_model(tmp_path, flags):
    source = edited(tmp_path, "llama", config={"bos_token_id": 1, "eos_token_id": 2})
    spm(source / "tokenizer.model")  # unknown 0, <s> 1, </s> 2
    (source / "tokenizer_config.json").write_text(json.dumps(flags))
    ids = of_source(source, load(source)[0])
    assert (ids.stops, ids.first, ids.before, ids.after) == ((2,), (1,), () if flags else (1,), ())
    assert (ids.tokenizer.eos_token, ids.tokenizer.start_token, ids.tokenizer.extra_ids) == ("</s>", "<s>", 0)


def test_which_file_is_the_tokenizer(tmp_path):
    ranks = "".join(f"{base64.b64encode(bytes([i])).decode()} {i}\n" for i in range(256))
    assert tokenizer_files.find(tmp_path, {}) is None
    (tmp_path / "tokenizer.model").write_text(ranks)  # as beside Llama 3
    assert tokenizer_files.find(tmp_path, {}) == TiktokenFile(str(tmp_path / "tokenizer.model"))
    (tmp_path / "tokenizer.model").unlink()
    (tmp_path / "qwen.tiktoken").write_text(ranks)
    assert tokenizer_files.find(tmp_path, {}) == TiktokenFile(str(tmp_path / "qwen.tiktoken"))
    spm(tmp_path / "spiece.model")
    assert tokenizer_files.find(tmp_path, {"model_type": "t5"}) == SentencePieceFile(str(tmp_path / "spiece.model"), 100)
    assert tokenizer_files.find(tmp_path, {"model_type": "llama"}) == SentencePieceFile(str(tmp_path / "spiece.model"))
    (tmp_path / "tokenizer.json").write_text("{}")
    assert tokenizer_files.find(tmp_path, {}) == HuggingFaceTokenizer(str(tmp_path / "tokenizer.json"))
