"""May an image be used: policies, signatures, and what they come to (containers-policy.json(5))."""
