# Keys, tokens, the roster and the links that stand on them.
foreach(name token identity roster)
  lingua_test(test_${name} ${CMAKE_CURRENT_LIST_DIR}/test_${name}.c ${CMAKE_CURRENT_LIST_DIR}/folder.c
    LIBS lingua_link)
endforeach()
set(link_tests link link_close)
if(NOT LINGUA_BENCH_PLAINTEXT) # which lets anybody in
  list(APPEND link_tests strangers)
endif()
foreach(name ${link_tests})
  lingua_test(test_${name} ${CMAKE_CURRENT_LIST_DIR}/test_${name}.c ${CMAKE_CURRENT_LIST_DIR}/link_rig.c
    LIBS lingua_link)
endforeach()
