"""What comes after the push: a model server and its versions. It needs pushed models only."""
