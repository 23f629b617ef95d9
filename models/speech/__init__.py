"""Pretrained speech encoders: sound to features on the pictures' clock, for a column and for a bare file alike.

* encoders.py    which there are, each loaded once in a process
* features.py    sound of any length to 50 rows a second
* base.py        what an encoder is
* hub.py         HuBERT and wav2vec 2.0, from the model hub or a folder
* moonshine.py   the encoder that travels inside a package

For a file at generation time: `speech_features(encoder("hubert-large"), samples_at(path, RATE), rows)`.
"""
