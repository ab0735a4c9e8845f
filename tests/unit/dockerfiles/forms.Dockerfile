ARG  A
ARG B="x y" C=
FROM busybox
MAINTAINER  Somebody <a@example.com>
ENV one=1 two="2 2" three=3\ 3 four='4 "4"'
ENV old   style  value
ARG D E=$A F="g h"
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
CMD
ENTRYPOINT []
CMD ["a", "b c", "\u00e9"]
CMD ["not json'
RUN	tab separated
ADD --checksum=sha256:abc --keep-git-dir=true https://example.com/x.git#main:sub /x
ADD --unpack=false --exclude=*.md a.tar b /c/
COPY ["with space", "/dst dir/"]
COPY --parents --exclude=a --exclude=b ./x/./y /z/
RUN --network=none --security=sandbox --device=nvidia.com/gpu=all true
VOLUME /a /b
HEALTHCHECK NONE
ONBUILD COPY . /app
RUN echo \
\
  gap

CMD echo $HOME
