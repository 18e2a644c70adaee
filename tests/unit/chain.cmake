# The chain is tested over a toy model (toy.c stands where src/model's objects would), so these programs
# take the sources above it instead of their libraries, which would bring the real one along.
set(chain_sources
  ${CMAKE_SOURCE_DIR}/src/plan/plan.c ${CMAKE_SOURCE_DIR}/src/device/executor.c
  ${CMAKE_SOURCE_DIR}/src/device/conn.c ${CMAKE_SOURCE_DIR}/src/device/serve.c
  ${CMAKE_SOURCE_DIR}/src/head/split.c ${CMAKE_SOURCE_DIR}/src/head/ring.c
  ${CMAKE_SOURCE_DIR}/src/head/chain.c ${CMAKE_SOURCE_DIR}/src/cli/cmd_device.c
  ${CMAKE_SOURCE_DIR}/tests/unit/toy.c)
lingua_test(test_split ${CMAKE_SOURCE_DIR}/tests/unit/test_split.c ${chain_sources} LIBS lingua_wire)
lingua_test(test_executor ${CMAKE_SOURCE_DIR}/tests/unit/test_executor.c ${chain_sources} LIBS lingua_wire)
lingua_test(test_chain ${CMAKE_SOURCE_DIR}/tests/unit/test_chain.c ${chain_sources} LIBS lingua_wire)
