#!/usr/bin/env bash
# Installs what `rowtide demo` and the tests need besides Go.
#
#   scripts/setup.sh demo   a MySQL or MariaDB server and a Redis server
#   scripts/setup.sh test   the above, MariaDB in any case, Java, Maven, Python
#                           with its Redis client, a C compiler for go test
#                           -race, and in the cache folder MySQL 9.x, Redis 8.x,
#                           Valkey 9.x and Apache Kafka 4.x
#
# A second run finds everything in place, is quiet and downloads nothing.
#
# MySQL, Redis 8 and Valkey come from Debian's unstable suite and Kafka from
# Maven Central. Where one of those two cannot be reached this script says so,
# leaves a file named MISSING in that part's cache folder and still exits 0:
# `make test` then runs degraded and says it in capitals. Any other fault is an
# error.
set -euo pipefail
# The output of apt and java is read below, so it must not be translated.
export LC_ALL=C

# 4.4.0 is listed on Maven Central but one of its own dependencies
# (kafka-tools-api 4.4.0) is not there, so 4.3.1 is the newest that resolves.
KAFKA_VERSION=4.3.1
# Kafka 4.3.1 logs through SLF4J 1.7; without a binding its log would be empty.
SLF4J_VERSION=1.7.36
DEPENDENCY_PLUGIN_VERSION=3.8.1
# Raise it when the layout of a cache folder changes: old folders are rebuilt.
LAYOUT=1
TRIES=3

CACHE=${ROWTIDE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/rowtide}
POLICY=/usr/sbin/policy-rc.d
made_policy=
scratch=
closed=

say() { printf 'setup: %s\n' "$*" >&2; }
die() {
	say "$*"
	exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# server_binary NAME finds a server: Debian keeps them in /usr/sbin, which is
# not on every user's PATH.
server_binary() { PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v "$1" 2>/dev/null; }

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif have sudo; then
		sudo "$@"
	else
		die "root is needed for: $*"
	fi
}

cleanup() {
	[ -z "$made_policy" ] || as_root rm -f "$POLICY"
	[ -z "$scratch" ] || rm -rf "$scratch"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# retry COMMAND... tries a download up to $TRIES times.
retry() {
	local n
	for n in $(seq "$TRIES"); do
		"$@" && return 0
		[ "$n" = "$TRIES" ] || sleep $((n * 2))
	done
	return 1
}

# unreachable tells, from the log of apt or Maven, a closed network from a fault
# of our own such as a wrong version.
unreachable() {
	grep -qiE 'could not (transfer|connect|resolve)|cannot initiate|unknown ?host|timed out|refused|unreachable|temporary failure|no route|no longer has a release file|does not have a release file' "$1"
}

# ---------------------------------------------------------------- Debian

wanted=()
want() { wanted+=("$@"); }

apt_get() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 "$@"; }

# install_wanted installs everything collected by want in one go. Servers that
# it brings in are started neither now nor at the next boot: Rowtide starts its
# own private ones, and a developer did not ask for a database service.
install_wanted() {
	[ ${#wanted[@]} -gt 0 ] || return 0
	have apt-get || die "please install by hand (there is no apt-get here): ${wanted[*]}"
	say "installing ${wanted[*]}"
	if [ ! -e "$POLICY" ]; then
		made_policy=yes
		printf '#!/bin/sh\nexit 101\n' | as_root tee "$POLICY" >/dev/null
		as_root chmod 755 "$POLICY"
	fi
	retry apt_get update || die "apt-get update does not work"
	retry apt_get install -y --no-install-recommends "${wanted[@]}" >/dev/null ||
		die "cannot install ${wanted[*]}"
	local unit
	for unit in mariadb redis-server; do
		case " ${wanted[*]} " in
		*" $unit "* | *" $unit-server "*)
			! have systemctl || as_root systemctl disable --quiet "$unit" 2>/dev/null || true
			;;
		esac
	done
	wanted=()
}

# jdk_package names the Debian package of a Java new enough for Kafka, with the
# compiler that the consumer of docs/envelope.md is run by.
jdk_package() {
	if apt-cache show openjdk-17-jdk-headless >/dev/null 2>&1; then
		echo openjdk-17-jdk-headless
	else
		echo default-jdk-headless
	fi
}

java_is_17() {
	local version
	have java || return 1
	version=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p')
	[ "${version:-0}" -ge 17 ]
}

# ---------------------------------------------------------------- unstable

# mirror prints the Debian mirror that this machine itself uses. apt reads its
# own sources, so every form of them (one-line, deb822) is understood.
mirror() {
	apt-get indextargets --no-release-info --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
		grep -E '/debian/?$' | head -n 1
}

# private_apt runs apt with its own sources, lists, cache and dpkg status, all
# below $scratch: the system's packages are neither consulted nor touched, and
# neither are the hooks in its configuration, which would clean the system's own
# cache. Only how to reach the network (proxies and the like) is taken over.
private_apt() { APT_CONFIG=$scratch/apt.conf apt-get -qq "$@" >"$scratch/apt.log" 2>&1; }

write_apt_conf() {
	apt-config dump Acquire >"$scratch/apt.conf"
	cat >>"$scratch/apt.conf" <<-EOF
		Dir::Etc::Main "/dev/null";
		Dir::Etc::Parts "/dev/null";
		Dir::Etc::SourceList "$scratch/sources.list";
		Dir::Etc::SourceParts "/dev/null";
		Dir::Etc::Preferences "/dev/null";
		Dir::Etc::PreferencesParts "/dev/null";
		Dir::State "$scratch";
		Dir::State::status "$scratch/status";
		Dir::State::lists "$scratch/lists";
		Dir::Cache "$scratch/cache";
		Debug::NoLocking "1";
		APT::Sandbox::User "$(id -un)";
		APT::Install-Recommends "false";
		APT::Update::Error-Mode "any";
		Acquire::Languages "none";
		Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
		Acquire::http::Timeout "30";
		Acquire::https::Timeout "30";
	EOF
}

# apt_or_unreachable runs private_apt with retries. It returns 2 when the
# network was in the way, and ends the script when anything else was.
apt_or_unreachable() {
	retry private_apt "$@" && return 0
	! unreachable "$scratch/apt.log" || return 2
	cat "$scratch/apt.log" >&2
	die "apt-get $* does not work with Debian's unstable suite"
}

# open_unstable makes $scratch a private apt on the unstable suite, once for all
# parts. It returns 2 when the suite cannot be reached.
open_unstable() {
	local arch uri keyring=/usr/share/keyrings/debian-archive-keyring.gpg
	[ -z "$closed" ] || return 2
	[ -z "$scratch" ] || return 0
	arch=$(dpkg --print-architecture)
	case $arch in
	amd64) triplet=x86_64-linux-gnu linker=ld-linux-x86-64.so.2 ;;
	arm64) triplet=aarch64-linux-gnu linker=ld-linux-aarch64.so.1 ;;
	*) die "the unstable suite for $arch is not known to this script" ;;
	esac
	uri=$(mirror) || return 2
	scratch=$(mktemp -d)
	mkdir -p "$scratch"/lists/partial "$scratch"/cache/archives/partial
	echo "deb [signed-by=$keyring] $uri unstable main" >"$scratch/sources.list"
	write_apt_conf
	# An empty dpkg status makes apt resolve the whole closure from unstable;
	# perl, which only packaging scripts need, is declared as there already.
	cat >"$scratch/status" <<-EOF
		Package: perl
		Status: install ok installed
		Maintainer: nobody <nobody@localhost>
		Architecture: $arch
		Multi-Arch: allowed
		Version: 99
		Description: stands in for the real one

	EOF
	apt_or_unreachable update || {
		close_unstable
		closed=yes # the other parts need not wait for the same timeouts
		return 2
	}
}

close_unstable() {
	[ -z "$scratch" ] || rm -rf "$scratch"
	scratch=
}

# unpack_unstable DIR PACKAGE [TAR-OPTION...] downloads a package and every
# library it needs, down to libc, from the unstable suite, and unpacks them side
# by side into DIR. Started through the unstable suite's own dynamic linker they
# run on any older Debian. It returns 2 when the suite cannot be reached.
unpack_unstable() {
	local dir=$1 package=$2 deb
	shift 2
	open_unstable || return 2
	rm -f "$scratch"/cache/archives/*.deb
	apt_or_unreachable install -y --download-only "$package" || return 2
	mkdir -p "$dir"
	for deb in "$scratch"/cache/archives/*.deb; do
		dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$dir" --no-same-owner \
			--exclude='./usr/share/doc*' --exclude='./usr/share/man*' --exclude='./usr/share/locale*' \
			--exclude='./usr/lib/systemd*' --exclude='*/gconv/*' "$@" ||
			die "cannot unpack $deb"
	done
}

# wrap DIR PROGRAM PATH [ARGUMENT...] writes DIR/PROGRAM, which starts DIR/PATH.
# It finds its files from its own place, so the folder can move.
wrap() {
	local dir=$1 program=$2 path=$3
	shift 3
	cat >"$dir/$program" <<-EOF
		#!/bin/sh
		here=\$(cd "\$(dirname "\$0")" && pwd)
		exec "\$here/usr/lib/$triplet/$linker" --library-path "\$here/usr/lib/$triplet" \\
			"\$here/$path" "\$@" $*
	EOF
	chmod 755 "$dir/$program"
}

unpack_mysql() {
	unpack_unstable "$1" mysql-server-core --exclude='./usr/bin/*' || return 2
	# shellcheck disable=SC2016 # $here is the wrapper's
	wrap "$1" mysqld usr/sbin/mysqld '--basedir="$here/usr"' '--plugin-dir="$here/usr/lib/mysql/plugin"' \
		'--lc-messages-dir="$here/usr/share/mysql"' '--character-sets-dir="$here/usr/share/mysql/charsets"'
	"$1/mysqld" --no-defaults --version | sed -n 's/.*Ver \([0-9.]*\).*/\1/p' >"$1/VERSION.new"
	[ -s "$1/VERSION.new" ] || die "the unpacked mysqld does not run"
}

# The servers' program is one of the tools' under another name, so it stays in
# usr/bin and everything else of other packages there goes.
unpack_redis() { unpack_store "$1" redis; }
unpack_valkey() { unpack_store "$1" valkey; }

unpack_store() {
	local dir=$1 name=$2
	unpack_unstable "$dir" "$name-server" || return 2
	find "$dir/usr/bin" "$dir/usr/sbin" -mindepth 1 ! -name "$name-*" -delete 2>/dev/null || true
	wrap "$dir" "$name-server" "usr/bin/$name-server"
	"$dir/$name-server" --version | sed -n 's/.* v=\([0-9.]*\).*/\1/p' >"$dir/VERSION.new"
	[ -s "$dir/VERSION.new" ] || die "the unpacked $name-server does not run"
}

# setup_unstable PART fills one folder of the cache by unpack_PART.
setup_unstable() {
	local part=$1 status=0
	# VERSION is written last, so it stands only in a complete folder.
	[ ! -e "$CACHE/$part/VERSION" ] || [ "$(cat "$CACHE/$part/LAYOUT" 2>/dev/null)" != "$LAYOUT" ] || return 0
	if ! have apt-get || [ -z "$(mirror || true)" ]; then
		missing "$part" "this machine's package sources name no Debian mirror"
		return 0
	fi
	say "unpacking $part from Debian's unstable suite into $CACHE/$part"
	rm -rf "$CACHE/$part.new"
	"unpack_$part" "$CACHE/$part.new" || status=$?
	case $status in
	0) adopt "$part" ;;
	2) missing "$part" "Debian's unstable suite cannot be reached" ;;
	*) die "unpacking $part stopped with status $status" ;;
	esac
}

# ---------------------------------------------------------------- Kafka 4

pom() {
	cat <<-EOF
		<project xmlns="http://maven.apache.org/POM/4.0.0">
		  <modelVersion>4.0.0</modelVersion>
		  <groupId>rowtide</groupId><artifactId>kafka-for-tests</artifactId><version>1</version>
		  <dependencies>
		    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$KAFKA_VERSION</version></dependency>
		    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>$SLF4J_VERSION</version></dependency>
		  </dependencies>
		</project>
	EOF
}

copy_jars() {
	mvn -B -ntp -q -f "$scratch/pom.xml" \
		"org.apache.maven.plugins:maven-dependency-plugin:$DEPENDENCY_PLUGIN_VERSION:copy-dependencies" \
		-DincludeScope=runtime -DoutputDirectory="$1" >"$scratch/mvn.log" 2>&1
}

setup_kafka() {
	[ "$(cat "$CACHE/kafka/VERSION" 2>/dev/null)" != "$KAFKA_VERSION" ] ||
		[ "$(cat "$CACHE/kafka/LAYOUT" 2>/dev/null)" != "$LAYOUT" ] || return 0
	say "fetching Apache Kafka $KAFKA_VERSION from Maven Central into $CACHE/kafka"
	scratch=$(mktemp -d)
	rm -rf "$CACHE/kafka.new"
	mkdir -p "$CACHE/kafka.new/libs"
	pom >"$scratch/pom.xml"
	if retry copy_jars "$CACHE/kafka.new/libs"; then
		echo "$KAFKA_VERSION" >"$CACHE/kafka.new/VERSION.new"
		adopt kafka
	elif unreachable "$scratch/mvn.log"; then
		missing kafka "Maven Central cannot be reached"
	else
		cat "$scratch/mvn.log" >&2
		die "Maven cannot resolve Apache Kafka $KAFKA_VERSION"
	fi
	rm -rf "$scratch"
	scratch=
}

# ---------------------------------------------------------------- cache

# adopt PART puts PART.new in the place of PART.
adopt() {
	echo "$LAYOUT" >"$CACHE/$1.new/LAYOUT"
	mv "$CACHE/$1.new/VERSION.new" "$CACHE/$1.new/VERSION"
	rm -rf "${CACHE:?}/$1"
	mv "$CACHE/$1.new" "$CACHE/$1"
	say "$1 $(cat "$CACHE/$1/VERSION") is ready"
}

missing() {
	rm -rf "${CACHE:?}/$1.new"
	mkdir -p "$CACHE/$1"
	echo "$2" >"$CACHE/$1/MISSING"
	say "DEGRADED: $1 could not be installed: $2"
}

# ---------------------------------------------------------------- main

part=${1:-}
case $part in
demo | test) ;;
*) die "usage: scripts/setup.sh demo|test" ;;
esac

mkdir -p "$CACHE"
# Two set-ups at a time (two shells, two CI jobs) would unpack into each other.
if have flock; then
	exec 9>"$CACHE/setup.lock"
	flock 9
fi

case $part in
demo)
	[ -n "$(server_binary mariadbd || server_binary mysqld || true)" ] || want mariadb-server
	;;
test)
	[ -n "$(server_binary mariadbd || true)" ] || want mariadb-server
	have redis-cli || want redis-tools
	{ java_is_17 && have javac; } || want "$(jdk_package)"
	have mvn || want maven
	# Debian's own Python, which its packages are for: PATH may have another first.
	/usr/bin/python3 -c 'import redis' 2>/dev/null || want python3 python3-redis
	# The race detector needs a C compiler.
	have gcc || have clang || want gcc libc6-dev
	;;
esac
[ -n "$(server_binary redis-server || true)" ] || want redis-server
install_wanted
[ "$part" = test ] || exit 0
for part in mysql redis valkey; do
	setup_unstable "$part"
done
close_unstable
setup_kafka
