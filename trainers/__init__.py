"""The trainers that ship: one readable file a method, recipes beside them."""
