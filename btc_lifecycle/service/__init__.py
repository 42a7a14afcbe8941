"""The HTTP service that predicts with the champion."""
