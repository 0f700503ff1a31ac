"""A model with its tokenizer: it continues texts, or tells how likely, how near to one another, or what behind a blank they are."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Optional

import numpy as np

from lm.data.objectives.base import SpecialIds
from lm.errors import UserError
from lm.infer import likelihood
from lm.infer.beams import Beams, search
from lm.infer.decode import Session, Written
from lm.infer.penalties import ForcedLast
from lm.infer.prompts import as_imported, prompt_ids, written
from lm.infer.speculative import Draft, write
from lm.infer.strategy import Steps, Strategy, compose
from lm.model import architectures
from lm.model.config import ModelConfig
from lm.model.execution import AS_LISTED
from lm.types import Params

CHUNK = 16  # tokens between two looks for a stop string
PIECE = 4  # tokens between two pieces of a stream
BROKEN = "\ufffd"  # what an incomplete character decodes to

Pooling = Literal["mean", "first", "last"]


class Text(NamedTuple):
    """A text that a model wrote, without its prompt and without what ended it."""

    text: str
    ids: list[int]
    log_prob: float  # of its ids, in nats, the id that ended it not counted
    ended: bool  # by an id or a string that ends texts, and not by its length
    per_token: float  # mean log-probability of its ids and of the id that ended it, in nats


class Score(NamedTuple):
    """How likely a continuation is: log-probability in nats, number of its ids, and whether each is the most likely one."""

    log_prob: float
    ids: int
    greedy: bool


class Candidate(NamedTuple):
    """A token that may stand at a blank."""

    text: str
    id: int
    probability: float


class TextModel:
    """A model and its tokenizer. `lm.infer.load` makes one."""

    def __init__(
        self,
        config: ModelConfig,
        params: Params,
        special: SpecialIds,
        source: Mapping[str, Any],
        *,
        stops: Sequence[int] = (),
        compute_dtype: Any = "float32",
    ):
        """Takes what `lm.infer.sources` found.

        Args:
          config: the configuration of the model.
          params: its parameters, layer by layer (lm.model.layers.listed).
          special: the ids of tokenizer and objective.
          source: the ids that an imported model puts around texts (lm.hf.ids); empty for one that was trained here.
          stops: ids that end a text, besides the tokenizer's end of document.
          compute_dtype: the dtype of activations and of the cache.
        """
        self.config, self.params, self.special, self.source, self.compute_dtype = config, params, special, source, compute_dtype
        self.model = architectures.build(config, AS_LISTED)
        self.ends = tuple(dict.fromkeys((special.tokenizer.eos_id, *stops)))

    def prompt_ids(self, text: str, blank: Optional[str] = None) -> list[int]:
        """Returns the ids that the model reads first: as its objective trains it or, of an import, as its own tokenizer has them."""
        if self.source and blank is None:
            return as_imported(text, self.special, self.config.architecture, self.source)
        return prompt_ids(text, self.special, self.config.architecture, blank)

    @property
    def start_ids(self) -> tuple[int, ...]:
        """The ids with which the decoder of an encoder-decoder begins: those that its files name, or the tokenizer's start."""
        return tuple(self.source.get("first") or (self.special.start,))

    def _strategy(self, steps: Steps) -> Strategy:
        """Returns the strategy, with the id that the files of an import force on texts that would be cut off (BART's)."""
        composed, last = compose(steps), self.source.get("generation", {}).get("forced_eos_token_id")
        if not isinstance(last, int) or any(isinstance(step, ForcedLast) for step in composed.steps):
            return composed
        return compose((*composed.steps, ForcedLast(last)))

    def generate(
        self,
        prompts: "str | Sequence[str]",
        *,
        max_new_tokens: int = 128,
        strategy: Steps = (),
        beams: Optional[Beams] = None,
        samples: int = 1,
        best_of: int = 1,
        stop: Sequence[str] = (),
        seed: int = 0,
        blank: Optional[str] = None,
        draft: "Optional[TextModel]" = None,
        guesses: int = 4,
    ) -> list[Text]:
        """Returns `samples` texts for each prompt, those of a prompt behind one another.

        Draws depend on the prompt, its number among equal prompts and the seed, and not on the other prompts. Neither do logits, up to
        rounding, which in bfloat16 is large enough to change texts.

        Args:
          prompts: a text, or several of them.
          max_new_tokens: the largest number of new tokens.
          strategy: steps of lm.infer.sampling and lm.infer.penalties in any order; greedy without any.
          beams: options of beam search; its best `samples` texts are returned.
          samples: the number of texts for each prompt.
          best_of: the number of texts of which each is the likeliest per token, the id that ended it counted.
          stop: strings that end a text.
          seed: the seed of the draws.
          blank: the mark in a prompt for a blank to fill, of a model whose objective fills blanks.
          draft: a smaller model with the same tokenizer, which guesses tokens (lm.infer.speculative).
          guesses: the number of tokens that it guesses at a time.

        Raises:
          UserError: a prompt is empty or too long, or options contradict one another.
        """
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        check_options(samples, best_of, beams, stop)
        self._check_draft(draft, beams)
        ids = [self.prompt_ids(text, blank) for text in texts]
        options: dict[str, Any] = {
            "max_new_tokens": max_new_tokens,
            "strategy": self._strategy(strategy),
            "eos_id": self.ends,
            "start_id": self.start_ids,
        }
        options["compute_dtype"] = self.compute_dtype
        after = [self._after(text, blank) for text in texts]
        if beams is not None:
            found = search(self.model, self.params, ids, beams, **options)
            return [self._text(row, before) for rows, before in zip(found, after, strict=True) for row in rows[:samples]]
        each = samples * best_of
        rows, befores = ([x for x in of_prompts for _ in range(each)] for of_prompts in (ids, after))
        if draft is None:
            written_texts = self._written(Session(self.model, self.params, rows, seed=seed, **options), befores, stop)
        else:
            found_rows = write(self.model, self.params, Draft(draft.model, draft.params, guesses), rows, seed=seed, **options)
            written_texts = [self._cut(row, before, stop) for row, before in zip(found_rows, befores, strict=True)]
        groups = [written_texts[i : i + best_of] for i in range(0, len(written_texts), best_of)]
        return [max(group, key=lambda text: text.per_token) for group in groups]

    def _check_draft(self, draft: "Optional[TextModel]", beams: Optional[Beams]) -> None:
        if draft is None:
            return
        if beams is not None:
            raise UserError("beam search uses no draft: leave one of the two out")
        if draft.special.tokenizer.fingerprint != self.special.tokenizer.fingerprint:
            raise UserError("the draft has another tokenizer than the model: name a model that was trained with the same")

    def stream(
        self, prompt: str, *, max_new_tokens: int = 128, strategy: Steps = (), stop: Sequence[str] = (), seed: int = 0
    ) -> Iterator[str]:
        """Yields a text in pieces as it is written (see `generate`): together they are the text, and each is whole characters."""
        check_options(1, 1, None, stop)
        composed = self._strategy(strategy)
        session = Session(
            self.model, self.params, [self.prompt_ids(prompt)], max_new_tokens=max_new_tokens, strategy=composed, eos_id=self.ends,
            start_id=self.start_ids, seed=seed, compute_dtype=self.compute_dtype,
        )  # fmt: skip
        given, after = "", self._after(prompt, None)
        while not session.done:
            session.advance(PIECE)
            (row,) = session.written()
            text = self._cut(row, after, stop)
            if text.ended and not row.ended:
                session.stop([0])
            ready = text.text if session.done or text.ended else _settled(text.text, stop)
            if ready.startswith(given) and len(ready) > len(given):
                yield ready[len(given) :]
                given = ready

    def score(self, prompt: str, continuation: str) -> Score:
        """Returns how likely a continuation is after a prompt.

        A decoder's prompt and continuation are encoded together and parted where the ids are no longer those of the prompt alone, so that
        a token which spans the border counts to the continuation. An encoder's is a pseudo-likelihood: each token is masked in turn
        (Salazar et al. 2020).

        Raises:
          UserError: the continuation has no tokens, or the whole is longer than the model reads.
        """
        tokenizer, architecture = self.special.tokenizer, self.config.architecture
        if architecture == "encoder_decoder":
            inputs, own = self.prompt_ids(prompt), [*self.start_ids, *tokenizer.encode(continuation).tolist()]
            begin = len(self.start_ids)
        else:
            whole = tokenizer.encode(prompt + continuation).tolist()
            part = _shared(tokenizer.encode(prompt).tolist(), whole)
            before, after = self._around()
            inputs, own, begin = [], [*before, *whole, *after], len(before) + part
        end = len(own) - (len(self._around()[1]) if architecture != "encoder_decoder" else 0)
        if end <= begin:
            raise UserError("the continuation is empty: give a text of at least one token")
        if architecture == "encoder":
            found = likelihood.masked(self.model, self.params, own, range(begin, end), self.special.mask, self.compute_dtype)
        else:
            prefix = begin if architecture == "prefix_lm" else None
            found = likelihood.following(self.model, self.params, own, begin, inputs, prefix, self.compute_dtype)
        return Score(float(np.sum(found.log_probs)), end - begin, bool(np.all(found.is_best)))

    def embed(self, texts: "str | Sequence[str]", *, pooling: Pooling = "mean", normalize: bool = True) -> np.ndarray:
        """Returns a vector [texts, d_model] for each text: states of the last layer (of an encoder-decoder's encoder), pooled over its ids.

        Args:
          texts: a text, or several of them.
          pooling: the mean of the states, or that of the first or the last id.
          normalize: whether vectors have length 1.
        """
        if pooling not in ("mean", "first", "last"):
            raise UserError(f"pooling={pooling}: give mean, first or last")
        rows = [self._whole(text) for text in ([texts] if isinstance(texts, str) else texts)]
        if not rows:
            raise UserError("there is no text to embed: give at least one")
        vectors = likelihood.pooled(self.model, self.params, rows, pooling, self.compute_dtype, self.start_ids)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12) if normalize else vectors

    def fill_mask(self, text: str, *, mask: str = "[MASK]", top: int = 5) -> list[list[Candidate]]:
        """Returns the `top` likeliest tokens for each mark in a text, likeliest first. All marks are masked at once.

        Raises:
          UserError: the model is no encoder, the mark is empty, or the text has none.
        """
        if not mask:
            raise UserError("the mark is empty: name what stands where a token is to be found, such as [MASK]")
        if self.config.architecture != "encoder" or not self.config.vocabulary_head:
            raise UserError("only an encoder with a head over the vocabulary fills masks: name a run of a masked language model")
        parts = text.split(mask)
        if len(parts) == 1:
            raise UserError(f"the text has no {mask}: write {mask} where a token is to be found, or name another mark")
        before, after = self._around()
        ids, at = list(before), []
        for part in parts[:-1]:
            ids += [*self._part(part), self.special.mask]
            at.append(len(ids) - 1)
        ids += [*self.special.tokenizer.encode(parts[-1]).tolist(), *after]
        share_MV = likelihood.at_masks(self.model, self.params, ids, at, self.compute_dtype)
        best_MK = np.argsort(-share_MV, axis=1, kind="stable")[:, :top]
        return [
            [Candidate(written([i], self.special), int(i), float(share[i])) for i in best]
            for best, share in zip(best_MK, share_MV, strict=True)
        ]

    def _part(self, text: str) -> list[int]:
        """Returns the ids of what stands before a mask. Byte-level tokenizers write the space before a word as part of the word."""
        tokenizer = self.special.tokenizer
        apart = [*tokenizer.encode("a ").tolist(), *tokenizer.encode("b").tolist()]
        joined = text.endswith(" ") and tokenizer.encode("a b").tolist() != apart
        return tokenizer.encode(text[:-1] if joined else text).tolist()

    def _around(self) -> tuple[list[int], list[int]]:
        """Returns the ids before and after a whole text."""
        if self.source:
            return list(self.source["before"]), list(self.source["after"]) if self.config.architecture != "decoder" else []
        if self.config.architecture == "encoder":
            return [self.special.ends[0]], [self.special.ends[1]]
        return ([], []) if self.config.architecture == "encoder_decoder" else ([self.special.start], [])

    def _whole(self, text: str) -> list[int]:
        before, after = self._around()
        ids = [*before, *self.special.tokenizer.encode(text).tolist(), *after]
        if not ids:
            raise UserError("a text is empty: give at least one token")
        return ids

    def _after(self, prompt: str, blank: Optional[str]) -> list[int]:
        """Returns the ids that the new text follows, which decide whether it begins with a space."""
        return self.special.tokenizer.encode(prompt).tolist() if self.continues(blank) else []

    def continues(self, blank: Optional[str] = None) -> bool:
        """Returns whether texts go on where their prompts end."""
        return blank is None and self.special.objective.continues_text

    def _text(self, row: Written, after: Sequence[int]) -> Text:
        counted = row.log_probs if row.end_log_prob is None else [*row.log_probs, row.end_log_prob]
        total = float(np.sum(row.log_probs))
        return Text(written(row.ids, self.special, after), row.ids, total, row.ended, float(np.mean(counted)) if counted else 0.0)

    def _cut(self, row: Written, after: Sequence[int], stop: Sequence[str]) -> Text:
        """Returns the text up to the first stop string, with the ids that wrote it and that string."""
        text = self._text(row, after)
        at = min((place for mark in stop if (place := text.text.find(mark)) >= 0), default=None)
        if at is None:
            return text
        size = next(n for n in range(len(row.ids) + 1) if any(mark in self._text(_first(row, n), after).text for mark in stop))
        counted = row.log_probs[:size]
        return Text(text.text[:at], row.ids[:size], float(np.sum(counted)), True, float(np.mean(counted)))

    def _written(self, session: Session, after: Sequence[Sequence[int]], stop: Sequence[str]) -> list[Text]:
        """Returns the texts of a session, each up to the first stop string."""
        cut = functools.partial(self._cut, stop=stop)
        while True:
            session.advance(CHUNK if stop else None)
            rows = session.written()
            texts = [cut(row, before) for row, before in zip(rows, after, strict=True)]
            if session.done:
                return texts
            session.stop([i for i, (text, row) in enumerate(zip(texts, rows, strict=True)) if text.ended and not row.ended])


def _first(row: Written, size: int) -> Written:
    return row._replace(ids=row.ids[:size])


def _shared(a: Sequence[int], b: Sequence[int]) -> int:
    """Returns the number of ids with which both begin."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _settled(text: str, stop: Sequence[str]) -> str:
    """Returns the part of a text that what follows cannot change: without an incomplete character or what may begin a stop string."""
    text = text.rstrip(BROKEN)
    longest = max((n for mark in stop for n in range(1, len(mark)) if text.endswith(mark[:n])), default=0)
    return text[: len(text) - longest]


def check_options(samples: int, best_of: int, beams: Optional[Beams], stop: Sequence[str]) -> None:
    """Raises UserError for options of `generate` that are out of range or contradict one another."""
    for name, value in (("samples", samples), ("best_of", best_of)):
        if value < 1:
            raise UserError(f"{name}={value}: give 1 or more")
    if isinstance(stop, str) or not all(stop):
        raise UserError("stop strings are a list of texts that are not empty")
    if beams is None:
        return
    if best_of > 1 or stop:
        raise UserError(f"beam search finds the likeliest texts by itself: leave {'best_of' if best_of > 1 else 'stop strings'} out")
    if samples > beams.width:
        raise UserError(f"beam search of {beams.width} beams finds no {samples} texts: give as many beams")
