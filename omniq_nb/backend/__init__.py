"""One backend for all four components, as users of the original OmniQ wrote it."""
