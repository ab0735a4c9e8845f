"""`python -m naru.daemon` is narud."""

from naru.daemon.main import main

main()
