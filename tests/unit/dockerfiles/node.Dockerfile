# syntax=docker/dockerfile:1
# check=skip=JSONArgsRecommended

ARG NODE=20
# the builder
FROM --platform=$BUILDPLATFORM node:${NODE}-slim AS Build
WORKDIR /src
COPY --link package.json package-lock.json ./
RUN --mount=type=cache,target=/root/.npm \
    --mount=type=secret,id=npmrc,target=/root/.npmrc \
    npm ci \
    # a comment between
    && npm cache verify

COPY . .
RUN npm run build -- --mode "$MODE"

FROM scratch AS export
COPY --from=build /src/dist /

FROM nginx:1.25
LABEL org.opencontainers.image.title="a \"web\" app" version=1
EXPOSE 8080/tcp 8443 53/udp
COPY --from=build --chown=101:101 --chmod=0644 /src/dist /usr/share/nginx/html
HEALTHCHECK --interval=30s --timeout=3s --start-period=5s --start-interval=1s --retries=3 CMD ["curl", "-f", "http://localhost/"]
STOPSIGNAL SIGQUIT
VOLUME ["/var/cache/nginx", "/run"]
USER nginx:nginx
ENTRYPOINT ["/docker-entrypoint.sh"]
CMD nginx -g 'daemon off;'
