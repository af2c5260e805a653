"""What a cluster is offered: images, load, slowness, failures and arrivals."""
