# The program as a person meets it, with the default model.
add_test(NAME live_cli COMMAND bash ${CMAKE_SOURCE_DIR}/tests/live/cli.sh $<TARGET_FILE:lingua>)
set_tests_properties(live_cli PROPERTIES FIXTURES_REQUIRED default_model TIMEOUT 600
  ENVIRONMENT "LINGUA_MODELS=${CMAKE_BINARY_DIR}/models")
