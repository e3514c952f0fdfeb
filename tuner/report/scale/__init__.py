"""Plots of loss against compute (`compute`) and learning rate (`sensitivity`)."""
