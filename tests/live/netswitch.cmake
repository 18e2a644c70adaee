add_test(NAME live_netswitch COMMAND bash ${CMAKE_SOURCE_DIR}/tests/live/netswitch.sh $<TARGET_FILE:lingua-netswitch>)
set_tests_properties(live_netswitch PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 120)
