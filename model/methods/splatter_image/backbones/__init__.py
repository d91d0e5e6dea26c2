"""Networks from source views to feature maps."""
