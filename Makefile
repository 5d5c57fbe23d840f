# Builds, tests, shows and installs mod_wsgi_rs.  GNU make.
#
#   make            build both libraries, optimised, in target/release;
#                   with PYTHON=…/python3.14t also the one for such a Python
#   make demo       run three applications behind a private httpd
#   make demo-browser  visit the demo with Chromium, where there is one
#   make demo-clients  visit git, Mercurial, WebDAV and httpbin with their own clients
#   make clients    get those and their clients into target/clients
#   make express    get mod_wsgi-express into target/express
#   make express-check  run configuration trees that it writes
#   make test       run the tests
#   make install    install the module into the system's httpd (as root)
#   make uninstall  remove it again
#   make deps       install what building and testing need (apt or dnf)
#   make bench      compare with mod_wsgi and what runs behind mod_proxy
#   make instructions  count what a request costs, against the budget
#   make faults     restart, reload and kill things under load; with SOAK=1,
#                   a thousand graceful restarts and what they leave
#   make stress     many requests to five interpreters: nothing may grow or crash;
#                   STRESS="--valgrind" or STRESS="--stops 100" tries other things
#   make clean      remove everything built
#
# DEMO="--port 9000", BENCH="--quick", FAULTS="--peer", STRESS="--valgrind" pass options on; DESTDIR,
# APXS and MODULESDIR are honoured by install.

CARGO ?= cargo
PYTHON ?= python3
RELEASE := target/release
DEBUG := target/debug

.DELETE_ON_ERROR:
.PHONY: all build build-debug demo demo-browser demo-clients clients express express-check test \
	install uninstall deps clean bench instructions faults stress symbols

all: build

# cargo names libraries its own way; httpd's users know them as mod_*.so, and
# the Apache half looks for the other half beside itself.  `install` makes new
# files: an old one may be mapped by a running httpd.
define rename_libraries
	install -m 644 $(1)/libmod_wsgi_rs.so $(1)/mod_wsgi_rs.so
	install -m 644 $(1)/libwsgi_python.so $(1)/wsgi_python.abi3.so
endef

build:
	$(CARGO) build --release --locked
	$(call rename_libraries,$(RELEASE))
	@CARGO="$(CARGO)" packaging/runtime.sh $(RELEASE) "$(PYTHON)" --release --locked

build-debug:
	$(CARGO) build --locked
	$(call rename_libraries,$(DEBUG))
	@CARGO="$(CARGO)" packaging/runtime.sh $(DEBUG) "$(PYTHON)" --locked

deps:
	@packaging/deps.sh

demo: deps
	@$(MAKE) --no-print-directory build
	@$(PYTHON) -B examples/demo.py $(DEMO)

demo-browser: deps
	@$(MAKE) --no-print-directory build
	@$(PYTHON) -B examples/demo.py --browser --pictures target/pictures/daemon $(DEMO)
	@$(PYTHON) -B examples/demo.py --browser --pictures target/pictures/embedded \
		--django embedded $(DEMO)

clients: deps
	@packaging/clients.sh

demo-clients: clients
	@$(MAKE) --no-print-directory build-debug
	$(CARGO) test --locked --test httpd -- clients:: --test-threads=2

express: deps
	@packaging/express.sh

express-check: express
	@$(MAKE) --no-print-directory build-debug
	$(CARGO) test --locked --test httpd -- express:: --test-threads=2

test: deps
	@$(MAKE) --no-print-directory build-debug
	$(CARGO) test --workspace --locked

# Root often has no cargo: what was built before is installed as it is.
install:
	@test -f $(RELEASE)/mod_wsgi_rs.so || $(MAKE) --no-print-directory build
	@packaging/install.sh install $(RELEASE)

uninstall:
	@packaging/install.sh uninstall

symbols:
	@packaging/check-symbols.sh $(RELEASE)

bench:
	@packaging/deps.sh bench
	@$(MAKE) --no-print-directory build
	@$(PYTHON) -B benches/cost $(BENCH)

instructions: deps
	@$(MAKE) --no-print-directory build
	@$(PYTHON) -B benches/instructions $(INSTRUCTIONS)

# WSGI_UNDER_TEST=/path/mod_wsgi.so tries that module instead of ours.
faults:
	@packaging/deps.sh $(if $(findstring --peer,$(FAULTS)),bench)
	@$(if $(WSGI_UNDER_TEST),:,$(MAKE) --no-print-directory build)
	@$(PYTHON) -B benches/faults $(if $(SOAK),--soak) $(FAULTS)

stress:
	@packaging/deps.sh
	@$(MAKE) --no-print-directory build
	@$(PYTHON) -B benches/stress $(STRESS)

clean:
	$(CARGO) clean
