# lingua plan on paper; with a running cluster it is tests/live/cluster/plan.mjs.
add_test(NAME live_plan COMMAND bash ${CMAKE_SOURCE_DIR}/tests/live/plan.sh $<TARGET_FILE:lingua> $<TARGET_FILE:lingua-test-model>)
set_tests_properties(live_plan PROPERTIES TIMEOUT 300)
