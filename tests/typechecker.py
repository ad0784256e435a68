"""The checker of types and shapes while tests run: an int may stand where a float is meant, as PEP 484 has it."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
