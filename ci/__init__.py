"""What the workflows in .github/workflows run besides the product's own commands."""
