"""Table 2 of Raffel et al. 2020: scores after fine-tuning (more is better) of the five architectures under two objectives.

GLUE and SuperGLUE are averages over tasks, CNNDM is ROUGE-2, SQuAD is exact match, and the last three are BLEU. The standard deviations are
the baseline's over ten runs (table 1): the encoder-decoder under denoising.
"""

from lm.study.comparison import Published

DENOISING = {
    "encoder-decoder": (83.28, 19.24, 80.88, 71.36, 26.98, 39.82, 27.65),
    "shared": (82.81, 18.78, 80.63, 70.73, 26.72, 39.03, 27.46),
    "half the layers": (80.88, 18.97, 77.59, 68.42, 26.38, 38.40, 26.95),
    "language model": (74.70, 17.93, 61.14, 55.02, 25.09, 35.28, 25.86),
    "prefix LM": (81.82, 18.61, 78.94, 68.11, 26.43, 37.98, 27.39),
}
LM_OBJECTIVE = {
    "encoder-decoder": (79.56, 18.59, 76.02, 64.29, 26.27, 39.17, 26.86),
    "shared": (79.60, 18.13, 76.35, 63.50, 26.62, 39.17, 27.05),
    "half the layers": (78.67, 18.26, 75.32, 64.06, 26.13, 38.42, 26.89),
    "language model": (73.78, 17.54, 53.81, 56.51, 25.23, 34.31, 25.38),
    "prefix LM": (79.68, 17.84, 76.87, 64.86, 26.28, 37.51, 26.76),
}

TABLE_2 = Published(
    source="Raffel et al. 2020, table 2",
    measures=("GLUE", "CNNDM", "SQuAD", "SuperGLUE", "EnDe", "EnFr", "EnRo"),
    sd=(0.235, 0.065, 0.343, 0.416, 0.112, 0.090, 0.108),
    scores=tuple(
        (group, name, scores)
        for group, table in (("Denoising", DENOISING), ("LM objective", LM_OBJECTIVE))
        for name, scores in table.items()
    ),
)
