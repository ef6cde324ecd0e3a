"""What somebody meets who installs cptbench and follows its guides (make installed)."""
