"""What earlier searches know: one model of losses at all sizes; faces `answer` and `propose`.

`settings` are what knowledge is about. `evidence` are trials with their losses, which a `library`
collects from the searches of a home and the shipped `atlas`; `laws` are published. `basin` is the
model of the best settings, `levels` that of the loss they reach, and a `suggestion` is from both.
"""
