// Package deploy_test keeps what cannot be compiled from rotting: the compose
// file and all that it mounts, the dashboards, the alert rules and the documents.
package deploy_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/rowtide/rowtide/config"
)

const root = ".."

// tree is the repository, with some files changed in memory, and what is wrong
// with it.
type tree struct {
	t       *testing.T
	overlay map[string]string
	faults  []string
}

func (r *tree) fault(format string, args ...any) {
	r.faults = append(r.faults, fmt.Sprintf(format, args...))
}

// read is a file's text; a missing one is a fault and empty.
func (r *tree) read(path string) string {
	if text, ok := r.overlay[path]; ok {
		return text
	}
	b, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		r.fault("read %s: %v", path, err)
	}
	return string(b)
}

func (r *tree) exists(path string) bool {
	_, err := os.Stat(filepath.Join(root, path))
	return err == nil
}

// parse reads a YAML or JSON file.
func (r *tree) parse(path, text string, into any) {
	if err := yaml.Unmarshal([]byte(text), into); err != nil {
		r.fault("parse %s: %v", path, err)
	}
}

type compose struct {
	Services map[string]service `yaml:"services"`
	Volumes  map[string]any     `yaml:"volumes"`
}

type service struct {
	Image       string            `yaml:"image"`
	Build       string            `yaml:"build"`
	Entrypoint  []string          `yaml:"entrypoint"`
	Command     []string          `yaml:"command"`
	Environment map[string]string `yaml:"environment"`
	Volumes     []string          `yaml:"volumes"`
	Expose      []string          `yaml:"expose"`
	Ports       []string          `yaml:"ports"`
	DependsOn   map[string]struct {
		Condition string `yaml:"condition"`
	} `yaml:"depends_on"`
	Healthcheck *struct {
		Test []string `yaml:"test"`
	} `yaml:"healthcheck"`
}

func (s *service) ours() bool { return s.Build != "" }

// arg is the word after flag in the service's command.
func (s *service) arg(flag string) string {
	if i := slices.Index(s.Command, flag); i >= 0 && i+1 < len(s.Command) {
		return s.Command[i+1]
	}
	return ""
}

// mounts maps a path in the container to the file or folder of the repository.
func (s *service) mounts() map[string]string {
	out := map[string]string{}
	for _, v := range s.Volumes {
		parts := strings.Split(v, ":")
		if local, ok := strings.CutPrefix(parts[0], "./"); ok && len(parts) > 1 {
			out[parts[1]] = local
		}
	}
	return out
}

var (
	variable = regexp.MustCompile(`\$\{(\w+)(?::-([^}]*))?\}|\$(\w+)`)
	pinned   = regexp.MustCompile(`^[a-z0-9-]+(/[a-z0-9-]+)?:v?\d+\.\d+`)
)

// check finds every fault of the compose file and what it mounts.
func (r *tree) check() []string {
	text := r.read("docker-compose.yml")
	r.checkVariables(text)
	var c compose
	r.parse("docker-compose.yml", expand(text), &c)
	for name, s := range c.Services {
		r.checkService(&c, name, &s)
	}
	r.checkServers(&c)
	r.checkPrometheus(&c)
	r.checkGrafana(&c)
	r.checkDockerfile()
	slices.Sort(r.faults)
	return r.faults
}

// expand puts in the defaults, as Compose does without an .env file.
func expand(text string) string {
	text = strings.ReplaceAll(text, "$$", "\x00")
	text = variable.ReplaceAllString(text, "$2")
	return strings.ReplaceAll(text, "\x00", "$")
}

// checkVariables holds .env.example against what is asked of the environment.
func (r *tree) checkVariables(text string) {
	example := map[string]string{}
	for line := range strings.Lines(r.read(".env.example")) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(name, "#") {
			example[name] = value
		}
	}
	asked := map[string]bool{}
	for _, m := range variable.FindAllStringSubmatch(withoutComments(strings.ReplaceAll(text, "$$", "")), -1) {
		if m[1] == "" {
			r.fault("docker-compose.yml: $%s: write ${%s:-default}, or $$ for the container's own", m[3], m[3])
			continue
		}
		asked[m[1]] = true
		if value, ok := example[m[1]]; !ok {
			r.fault(".env.example lacks %s, which docker-compose.yml asks for", m[1])
		} else if value != m[2] {
			r.fault("%s is %q by default in docker-compose.yml and %q in .env.example", m[1], m[2], value)
		}
	}
	for name := range example {
		if !asked[name] {
			r.fault(".env.example names %s, which nothing asks for", name)
		}
	}
}

func withoutComments(text string) string {
	return regexp.MustCompile(`(?m)^\s*#.*$`).ReplaceAllString(text, "")
}

func (r *tree) checkService(c *compose, name string, s *service) {
	if !s.ours() && !pinned.MatchString(s.Image) {
		r.fault("%s: image %q: want name:tag without a registry, with at least two numbers in the tag", name, s.Image)
	}
	for other, d := range s.DependsOn {
		dep, ok := c.Services[other]
		if !ok {
			r.fault("%s depends on %s, which is no service", name, other)
		} else if d.Condition != "service_healthy" || dep.Healthcheck == nil {
			r.fault("%s depends on %s: want condition service_healthy and a healthcheck there", name, other)
		}
	}
	for _, p := range s.Ports {
		host, published, ok := strings.Cut(p, ":")
		_, inside, ok2 := strings.Cut(published, ":")
		if !ok || !ok2 || host != "127.0.0.1" {
			r.fault("%s publishes %s: want 127.0.0.1:PORT:PORT", name, p)
		}
		if !slices.Contains(s.Expose, inside) {
			r.fault("%s publishes %s but does not expose %s", name, p, inside)
		}
	}
	for _, v := range s.Volumes {
		source, _, _ := strings.Cut(v, ":")
		local, bind := strings.CutPrefix(source, "./")
		if bind && !r.exists(local) {
			r.fault("%s mounts %s, which does not exist", name, local)
		}
		if _, declared := c.Volumes[source]; !bind && !declared {
			r.fault("%s mounts volume %s, which is not declared", name, source)
		}
	}
	if !s.ours() {
		return
	}
	if s.Healthcheck == nil || len(s.Expose) == 0 || !strings.Contains(strings.Join(s.Healthcheck.Test, " "), "://127.0.0.1:"+s.Expose[0]+"/") {
		r.fault("%s: the health check does not ask the port %v that it exposes", name, s.Expose)
	}
	r.checkProgram(c, name, s)
}

// checkProgram checks a service that runs our image.
func (r *tree) checkProgram(c *compose, name string, s *service) {
	if len(s.Entrypoint) > 0 {
		r.checkWebNode(c, name, s)
		return
	}
	if len(s.Command) == 0 || !slices.Contains(subcommands(r), s.Command[0]) {
		r.fault("%s: command %q: rowtide has no such subcommand", name, s.Command)
		return
	}
	path := s.arg("-c")
	local, ok := s.mounts()[path]
	if !ok {
		r.fault("%s: nothing is mounted at its config's path %q", name, path)
		return
	}
	load, known := r.load, environment(keys())
	if s.Command[0] == "stock" {
		load, known = r.loadStock, environment(stockKeys())
	}
	e := load(local)
	for key := range s.Environment {
		if !slices.Contains(known, key) {
			r.fault("%s: %s stands for no key of the config", name, key)
		}
	}
	for _, addr := range e.addrs {
		host, port, err := net.SplitHostPort(addr)
		if err != nil || !slices.Contains(c.Services[host].Expose, port) {
			r.fault("%s: %s names %s, which no service exposes", name, local, addr)
		}
		if _, ok := s.DependsOn[host]; !ok {
			r.fault("%s: %s names %s, which it does not depend on", name, local, host)
		}
	}
	_, port, _ := net.SplitHostPort(e.listen)
	if !slices.Contains(s.Expose, port) || !strings.HasPrefix(e.listen, "0.0.0.0:") {
		r.fault("%s: %s listens on %q, exposed is %v", name, local, e.listen, s.Expose)
	}
	if user := c.Services["redis"].Command; !slices.Contains(user, e.redisUser) {
		r.fault("%s: %s names redis user %q, which redis does not define", name, local, e.redisUser)
	}
	accounts := r.read("deploy/mysql/30-accounts.sh")
	if !strings.Contains(accounts, "CREATE USER '"+e.sourceUser+"'@") {
		r.fault("%s: %s names source user %q, which is not created", name, local, e.sourceUser)
	}
	for _, table := range e.tables {
		if !strings.Contains(accounts, "GRANT SELECT ON "+table+" TO '"+e.sourceUser+"'") {
			r.fault("%s: %s reads %s, which %q may not", name, local, table, e.sourceUser)
		}
	}
}

// temporary is a copy of a file of the tree on disk.
func (r *tree) temporary(path string) string {
	tmp := filepath.Join(r.t.TempDir(), filepath.Base(path))
	if err := os.WriteFile(tmp, []byte(r.read(path)), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return tmp
}

// program is what a config says about the world around the process.
type program struct {
	addrs, tables                 []string
	listen, redisUser, sourceUser string
}

// load is `rowtide check --offline` on a file of the tree.
func (r *tree) load(path string) program {
	cfg, err := config.Load(r.temporary(path))
	if err != nil {
		r.fault("%s: %v", path, err)
	}
	return program{
		addrs:  slices.Concat([]string{cfg.Source.Addr}, cfg.Redis.Addrs, cfg.Kafka.Brokers),
		tables: tablesOf(cfg.Modules), listen: cfg.HTTP.Listen,
		redisUser: cfg.Redis.Username, sourceUser: cfg.Source.User,
	}
}

// loadStock is `rowtide stock check --offline` on a file of the tree.
func (r *tree) loadStock(path string) program {
	cfg, err := config.LoadStock(r.temporary(path))
	if err != nil {
		r.fault("%s: %v", path, err)
	}
	return program{
		addrs:  slices.Concat([]string{cfg.DB.Addr}, cfg.Redis.Addrs, cfg.Stock.Kafka.Brokers),
		listen: cfg.HTTP.Listen, redisUser: cfg.Redis.Username, sourceUser: cfg.DB.User,
	}
}

// checkWebNode holds the flags against the example's source, and the modules that
// it loads itself against the daemon's: both write the same keys.
func (r *tree) checkWebNode(c *compose, name string, s *service) {
	source := r.read("examples/webnode/main.go")
	for _, arg := range s.Command {
		flag, value, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if !strings.Contains(source, `, "`+flag+`", `) {
			r.fault("%s: examples/webnode has no flag -%s", name, flag)
		}
		for _, addr := range regexp.MustCompile(`[a-z0-9.]+:\d+`).FindAllString(value, -1) {
			host, port, _ := net.SplitHostPort(addr)
			if host == "0.0.0.0" {
				host = name
			} else if _, ok := s.DependsOn[host]; !ok {
				r.fault("%s: -%s names %s, which it does not depend on", name, flag, host)
			}
			if !slices.Contains(c.Services[host].Expose, port) {
				r.fault("%s: -%s names %s, which no service exposes", name, flag, addr)
			}
		}
	}
	type module struct {
		Name string
		Key  string
		From any
	}
	var theirs, ours struct{ Modules []module }
	const example, daemon = "examples/webnode/rowtide.yaml", "deploy/rowtide/rowtide.yaml"
	r.parse(example, r.read(example), &theirs)
	r.parse(daemon, r.read(daemon), &ours)
	for _, want := range theirs.Modules {
		if !slices.ContainsFunc(ours.Modules, func(got module) bool { return fmt.Sprint(got) == fmt.Sprint(want) }) {
			r.fault("%s: %s has module %v, %s has another or none", name, example, want, daemon)
		}
	}
}

// checkServers checks the settings that the daemon's preflight asks for and the
// rights that a promise rests on.
func (r *tree) checkServers(c *compose) {
	mysql := strings.Join(c.Services["mysql"].Command, " ")
	for _, flag := range []string{"--log-bin", "--binlog-format=ROW", "--binlog-row-image=FULL", "--binlog-row-metadata=FULL", "--gtid-mode=ON"} {
		if !strings.Contains(mysql, flag) {
			r.fault("mysql lacks %s", flag)
		}
	}
	// A script that is not executable is sourced by the image's own, which its set -u
	// would end.
	if info, err := os.Stat(filepath.Join(root, "deploy/mysql/30-accounts.sh")); err != nil || info.Mode()&0o111 == 0 {
		r.fault("deploy/mysql/30-accounts.sh is not executable")
	}
	redis := c.Services["redis"]
	if redis.arg("--maxmemory-policy") != "noeviction" {
		r.fault("redis may evict stock counters")
	}
	forbidden := regexp.MustCompile(`^\+(@.*|del|unlink|flush.*|expire.*|pexpire.*|rename.*|getdel|getex|eval)$|^allcommands$|^allkeys$|^~\*$`)
	for _, user := range []string{"rowtide", "default"} {
		rights := rightsOf(redis.Command, user)
		if len(rights) == 0 {
			r.fault("redis has no user %s", user)
		}
		for _, right := range rights {
			if forbidden.MatchString(right) {
				r.fault("redis user %s has %s: caches are overwritten, never deleted", user, right)
			}
		}
	}
}

// rightsOf is what follows --user name in the server's command line.
func rightsOf(command []string, user string) []string {
	for i, w := range command {
		if w == user && i > 0 && command[i-1] == "--user" {
			rest := command[i+1:]
			if end := slices.Index(rest, "--user"); end >= 0 {
				rest = rest[:end]
			}
			return rest
		}
	}
	return nil
}

func (r *tree) checkDockerfile() {
	for _, m := range regexp.MustCompile(`go build .*\s(\./\S+)`).FindAllStringSubmatch(r.read("Dockerfile"), -1) {
		if files, _ := filepath.Glob(filepath.Join(root, m[1], "*.go")); len(files) == 0 {
			r.fault("Dockerfile builds %s, which does not exist", m[1])
		}
	}
	if !strings.Contains(r.read("Dockerfile"), "\nUSER 65532") {
		r.fault("Dockerfile: the image runs as root")
	}
}

func TestDeploy_FitsTogether(t *testing.T) {
	r := &tree{t: t}
	for _, f := range r.check() {
		t.Error(f)
	}
}

// TestDeploy_NoticesFaults breaks one thing at a time.
func TestDeploy_NoticesFaults(t *testing.T) {
	const (
		composeYML = "docker-compose.yml"
		daemonYML  = "deploy/rowtide/rowtide.yaml"
		promYML    = "deploy/prometheus/prometheus.yml"
		alertsYML  = "deploy/prometheus/alerts.yml"
		dashboard  = "deploy/grafana/dashboards/rowtide.json"
		accounts   = "deploy/mysql/30-accounts.sh"
	)
	for _, tt := range []struct{ name, file, old, with, want string }{
		{"port on all interfaces", composeYML, `"127.0.0.1:8077:8077"`, `"8077:8077"`, "want 127.0.0.1"},
		{"port that is not exposed", composeYML, `127.0.0.1:8078:8078`, `127.0.0.1:8078:8079`, "does not expose 8079"},
		{"unknown dependency", composeYML, "      kafka: {condition: service_healthy}", "      kafak: {condition: service_healthy}", "kafak, which is no service"},
		{"dependency without health", composeYML, "redis: {condition: service_healthy}", "redis: {condition: service_started}", "want condition service_healthy"},
		{"missing mount", composeYML, "./deploy/rowtide/rowtide.yaml:", "./deploy/rowtide/daemon.yaml:", "does not exist"},
		{"config elsewhere", composeYML, "[run, -c, /etc/rowtide/rowtide.yaml]", "[run, -c, /etc/rowtide.yaml]", "nothing is mounted"},
		{"unknown subcommand", composeYML, "[run, -c", "[follow, -c", "no such subcommand"},
		{"unknown variable of the config", composeYML, "ROWTIDE_SOURCE_PASSWORD:", "ROWTIDE_SOURCE_PASSWD:", "stands for no key"},
		{"variable not in the example", composeYML, "${GRAFANA_ADMIN_PASSWORD:-grafana-dev}", "${GRAFANA_PASSWORD:-grafana-dev}", ".env.example lacks GRAFANA_PASSWORD"},
		{"other default", ".env.example", "WEB_MYSQL_PASSWORD=web-dev", "WEB_MYSQL_PASSWORD=web", `"web" in .env.example`},
		{"leftover variable", ".env.example", "GRAFANA_ADMIN_PASSWORD=grafana-dev", "GRAFANA_ADMIN_PASSWORD=grafana-dev\nX=1", "names X, which nothing asks for"},
		{"image without a tag", composeYML, "redis:8.2.1", "redis:latest", "image"},
		{"undeclared volume", composeYML, "mysql-data:/var", "db-data:/var", "not declared"},
		{"row metadata off", composeYML, "--binlog-row-metadata=FULL", "--binlog-row-metadata=MINIMAL", "mysql lacks --binlog-row-metadata"},
		{"right to delete", composeYML, "+info, +scan", "+set, +del", "overwritten, never deleted"},
		{"everything for everybody", composeYML, "+get, +mget, +getrange, +set", "+@all", "redis user default has +@all"},
		{"keys of the counters", composeYML, `nopass, "~rowtide:*"`, `nopass, "~*"`, "redis user default has ~*"},
		{"flag of the web node that is gone", composeYML, "-brokers=", "-kafka=", "no flag -kafka"},
		{"web node on a wrong port", composeYML, "-redis=redis:6379", "-redis=redis:6380", "redis:6380, which no service exposes"},
		{"health check of a wrong port", composeYML, "127.0.0.1:8078/healthz", "127.0.0.1:8077/healthz", "health check does not ask"},
		{"columns that the web node does not write", daemonYML, "columns: [id, name, city]", "columns: [id, name]", "has another or none"},
		{"stock key misspelt", "deploy/rowtide/stock.yaml", "limits:", "limit:", "limit is not a known key"},
		{"misspelt key", daemonYML, "server_id:", "serverid:", "serverid is not a known key"},
		{"table without a grant", daemonYML, "table: shop.price_tier, columns", "table: shop.price, columns", "reads shop.price, which"},
		{"grant withdrawn", accounts, "GRANT SELECT ON shop.stock_cell TO 'rowtide'", "GRANT SELECT ON shop.stock_sku TO 'rowtide'", "reads shop.stock_cell, which"},
		{"wrong port of a server", daemonYML, "kafka:9092", "kafka:9093", "which no service exposes"},
		{"daemon on loopback", daemonYML, "0.0.0.0:8077", "127.0.0.1:8077", "listens on"},
		{"redis user unknown", daemonYML, "username: rowtide", "username: nobody", "redis does not define"},
		{"scrape target gone", promYML, "rowtide:8077", "rowtide:8076", "rowtide:8076, which no service exposes"},
		{"rules not mounted", promYML, "/etc/prometheus/alerts.yml", "/etc/prometheus/rules.yml", "nothing is mounted at"},
		{"alert on a metric that is gone", alertsYML, "rowtide_publisher_kafka_up", "rowtide_kafka_up", "rowtide_kafka_up is no metric"},
		{"alert without a runbook", alertsYML, "docs/operations.md, Lag.", "docs/operations.md, Delay.", "no heading"},
		{"panel on a metric that is gone", dashboard, "rowtide_aggregator_flush_seconds_bucket", "rowtide_flush_seconds_bucket", "rowtide_flush_seconds_bucket is no metric"},
		{"counter used as histogram", dashboard, "rowtide_aggregator_flush_seconds_bucket", "rowtide_aggregator_flushes_total_bucket", "is no metric"},
		{"dashboard that does not parse", dashboard, `"panels": [`, `"panels": `, "parse"},
		{"package that is gone", "Dockerfile", "./cmd/rowtide", "./cmd/rowtided", "does not exist"},
		{"root in the image", "Dockerfile", "USER 65532:65532", "USER root", "runs as root"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &tree{t: t, overlay: map[string]string{}}
			before := r.read(tt.file)
			if !strings.Contains(before, tt.old) {
				t.Fatalf("%s no longer contains %q: mend this case", tt.file, tt.old)
			}
			r.overlay[tt.file] = strings.ReplaceAll(before, tt.old, tt.with)
			if got := strings.Join(r.check(), "\n"); !strings.Contains(got, tt.want) {
				t.Errorf("faults:\n%s\nwant one with %q", got, tt.want)
			}
		})
	}
}
