FROM debian
RUN <<EOF
set -e
echo "hello # not a comment"
EOF
RUN <<-'ONE' cat - <<TWO
	$kept
	ONE
second
TWO
RUN python3 <<PY > /out
print(1)
PY
COPY <<a.txt <<"b.txt" c /dst/
A $x
a.txt
B $x
b.txt
RUN ["echo", "<<EOF"]
RUN cat <<<word
ONBUILD RUN <<X
later
X
