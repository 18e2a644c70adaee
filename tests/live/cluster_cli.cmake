# The commands of the cluster as a person meets them: real processes, sockets and tokens.
add_test(NAME live_cluster_cli COMMAND bash ${CMAKE_SOURCE_DIR}/tests/live/cluster_cli.sh $<TARGET_FILE:lingua>)
set_tests_properties(live_cluster_cli PROPERTIES FIXTURES_REQUIRED default_model TIMEOUT 600
  ENVIRONMENT "LINGUA_MODELS=${CMAKE_BINARY_DIR}/models")
