"""The parts of TensorBoard's view (:mod:`evaluation.report.tensorboard`).

* :mod:`~evaluation.report.board.events`: a run's event file, written whole
* :mod:`~evaluation.report.board.curves`: measures over ε, audits and guards, as charts of the Custom Scalars tab
* :mod:`~evaluation.report.board.trials`: one row a model on the HParams tab, and its curves over training steps
* :mod:`~evaluation.report.board.pictures`: trade-off, ROC on logarithmic axes, reconstructions by ε, for the Images tab
* :mod:`~evaluation.report.board.words`: what was found and how to read each tab, for the Text tab
"""
