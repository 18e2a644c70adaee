# The library's own logic, with stand-ins for the model, the vocabulary and the chain.
lingua_test(test_session tests/unit/session.c tests/unit/fakes.c src/head/engine.c src/head/session.c
  src/head/engine_remote.c src/head/remote.c src/head/trace.c src/device/conn.c
  LIBS lingua_wire PkgConfig::JANSSON)
