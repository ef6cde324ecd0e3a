"""What somebody meets who installs cptbench and follows its guides and examples (make installed)."""
