# The cluster as real processes over real sockets (tests/live/cluster), one file for each claim. They
# watch the clock, so each runs alone. Needs node; without it ctest says that they were skipped.
find_program(LINGUA_NODE node)
set(cluster_env LINGUA_PROGRAM=$<TARGET_FILE:lingua>
  LINGUA_TEST_DIR=${CMAKE_BINARY_DIR}/live-cluster
  LINGUA_NETSWITCH=${CMAKE_BINARY_DIR}/lingua-netswitch)
if(NOT LINGUA_SANITIZE)
  foreach(area answers shipping loss neighbours moving strangers revoke tokens budgets commands
          restart plan top)
    if(LINGUA_NODE)
      add_test(NAME live_cluster_${area}
        COMMAND ${LINGUA_NODE} ${CMAKE_SOURCE_DIR}/tests/live/cluster/${area}.mjs)
    else()
      add_test(NAME live_cluster_${area} COMMAND sh -c "echo SKIPPED: there is no node; exit 77")
    endif()
    set_tests_properties(live_cluster_${area} PROPERTIES SKIP_RETURN_CODE 77 RUN_SERIAL ON
      TIMEOUT 300 ENVIRONMENT "${cluster_env}")
    lingua_test_needs_model(live_cluster_${area})
  endforeach()
endif()
