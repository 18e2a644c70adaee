# The head's core as whole clusters on a virtual clock: without links, devices or models.
set(sim_sources
  ${CMAKE_SOURCE_DIR}/src/head/core.c ${CMAKE_SOURCE_DIR}/src/head/core_epoch.c
  ${CMAKE_SOURCE_DIR}/src/head/core_batch.c ${CMAKE_SOURCE_DIR}/src/head/core_flight.c
  ${CMAKE_SOURCE_DIR}/src/head/core_slots.c ${CMAKE_SOURCE_DIR}/src/head/core_stream.c
  ${CMAKE_SOURCE_DIR}/src/head/siphash.c
  ${CMAKE_SOURCE_DIR}/tests/sim/sim.c ${CMAKE_SOURCE_DIR}/tests/sim/sim_device.c
  ${CMAKE_SOURCE_DIR}/tests/sim/sim_client.c ${CMAKE_SOURCE_DIR}/tests/sim/sim_stream.c)
lingua_test(test_core ${CMAKE_SOURCE_DIR}/tests/sim/test_core.c ${sim_sources} LIBS lingua_plan)
lingua_test(test_sim_golden ${CMAKE_SOURCE_DIR}/tests/sim/test_golden.c ${sim_sources} LIBS lingua_plan)
lingua_test(test_sim ${CMAKE_SOURCE_DIR}/tests/sim/test_sim.c ${sim_sources} LIBS lingua_plan)
foreach(name test_core test_sim_golden test_sim)
  target_compile_definitions(${name} PRIVATE SIM_GOLDEN="${CMAKE_SOURCE_DIR}/tests/sim/golden")
endforeach()
