"""Plots of loss against compute (`compute`), learning rate (`sensitivity`), size (`collapse`)."""
