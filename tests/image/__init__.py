"""The image, built, and the compose file to try it, brought up for real. `make image-test` runs this.

- `engine`     podman and buildah with storage of their own, so that nothing here is seen by who uses them for real
- `bases`      base images: pulled, or where no registry can be reached, stood in for by Debian roots
- `composed`   the compose file, up
"""
