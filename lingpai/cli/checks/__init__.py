"""What `lingpai doctor` looks at, one file per subject; each yields steps in the order a person would try them."""
