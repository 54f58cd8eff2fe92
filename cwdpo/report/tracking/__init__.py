"""`cwdpo track`: brings what is finished into MLflow. The only process that writes there; jobs never do.

writer.py      one writer a home
server.py      the client, and what its errors mean
book.py        the runs of a grid as MLflow has them, and putting one there whole
names.py       what MLflow takes as names and values
records.py     what stages left in the store, as tags that lead back to it
curves.py      training curves, probes and scores as metrics
cells.py       what the run of a cell, and of a case, shall hold
running.py     curves of cells that are not finished yet
synchronise.py one pass, and passes without end
"""
