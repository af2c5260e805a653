"""The frontend by HTTP: the Open Inference Protocol, ``/v1/predict`` and the page. Off unless a port is given."""
